"""The Medical Event Data Standard (MEDS) 0.4: a dataset read as a release, and a store written as one."""
