"""A day of Huntington transfers: its batches, whether the bank agrees, and the thirty days that end with it."""
