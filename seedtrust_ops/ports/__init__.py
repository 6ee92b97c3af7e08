"""What the domain needs from outside services: one module per kind of service, with its protocol, values and errors.

The clients that implement the protocols are in `resources`; what a response leads to is decided in `domain`.
"""
