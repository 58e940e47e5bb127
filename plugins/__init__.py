"""The policies that come with the PBX. Each imports `pbx.policy`, and nothing else of it."""
