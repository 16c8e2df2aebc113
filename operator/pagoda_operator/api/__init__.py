"""What users write: the InferenceService's spec and status as pydantic models, its CRD generated from them, and the one
`validate` that refuses, without an API server, what the API server refuses, in the same words."""
