"""A whole Kassa under fire: processes killed, Redis flushed and stopped, the provider failing."""
