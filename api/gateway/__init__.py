"""The gateway: one public address before the git service, the service of calls, and the API for everything else.

It is a reverse proxy that no client can use to hold a thread of a service: bodies for the API and for calls are read
whole before the service is asked, their responses are taken from the service at its own speed, and both directions have
a least rate. RFC 9110, section 7.6, says which headers an intermediary forwards.
"""
