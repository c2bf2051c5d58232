"""The queue against bare commands of the same client on the same server."""
