"""Deploying while a model trains. `callback` imports Keras, so it is imported only when somebody asks for it."""
