"""Report language on plain Python strings: sections, sentences, findings, prompts. No torch."""
