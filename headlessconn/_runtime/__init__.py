"""Layer 2, the runtime: it acts. asyncio, sockets, dnspython, tenacity, cachetools; no policy."""
