"""Where a bundle goes: a module and one function `write` for each target; `..bundle.TARGETS` lists them."""
