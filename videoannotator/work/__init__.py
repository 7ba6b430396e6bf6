"""
From the queue to a result. `worker` claims jobs, `job_run` sees one job to its ending, `stage_run` one stage; the other
files are what they ask: may it start now (`gate`, `scheduler`), was it done before (`reuse`, `cache`, `fingerprint`),
is it tried again (`retries`), what is written of it (`notes`, `insistence`).
"""
