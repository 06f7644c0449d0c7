"""The gateway: one public address before the git service, the service of calls, and the API for everything else.

It is a reverse proxy behind which no client holds a thread of a service: bodies for the API and for calls are read
completely before the service is asked, their responses are read from the service at its own speed, and clients must
keep a minimum rate in both directions. RFC 9110, section 7.6, says which headers an intermediary forwards.
"""
