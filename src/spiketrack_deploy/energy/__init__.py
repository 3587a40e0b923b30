"""Counts to prices to reports: what a search frame and a template update cost, layer by layer, always as a band."""
