"""What the domain needs from outside: one module for each kind of service, with its protocol, values and errors.

The clients that implement them are in `resources`; what follows from an answer is decided in `domain`.
"""
