"""Serves pictures over HTTP, on the runtime's face: OpenAI's images API and BFL's protocol for one bundle."""
