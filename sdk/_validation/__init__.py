"""Validation of messages by the rules of ``buf/validate/validate.proto``, https://protovalidate.com."""
