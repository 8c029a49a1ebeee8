"""Production logs of a speculative sampler: a record for each drafted token, judged by what must average to nothing."""
