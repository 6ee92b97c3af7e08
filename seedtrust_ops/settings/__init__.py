"""Groups of settings by subject, each a few environment variables that are needed together; `config` reads them."""
