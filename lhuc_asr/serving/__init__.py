"""Transcription as a service: requests of many persons at once, over HTTP, by processes that Ray Serve keeps."""
