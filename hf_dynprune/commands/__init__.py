"""One file per command of `hf-dynprune`: options, help, and a call into the package."""
