"""The web server of the Dagster UI, which refuses what pages of other sites can make a browser send.

`request_guard` decides about each request; `server` runs Dagster's application behind it.
"""
