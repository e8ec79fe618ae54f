"""Services that the proxy answers itself: RayServeAPIService, health and reflection."""
