"""See the package."""

TokensPrompt = None
