"""The Messaging Layer Security protocol, RFC 9420, as code without input or output."""
