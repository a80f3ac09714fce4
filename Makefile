help:
	@echo see README
