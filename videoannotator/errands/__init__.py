"""
What a job needs of the world outside the storage directory: `fetch.py` brings a video from its URL, `publish.py` puts
results into a directory of the caller's, `courier.py` tells a URL of the caller's that the job is over, `desk.py` has
it all in hand for a worker. (A database of the caller's is SQL, and so in `store/foreign.py`.)
"""
