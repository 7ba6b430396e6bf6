-- What the processes of a stage took of GPUs and disks, of its last attempt; NULL where nobody says, and of older ones.

ALTER TABLE stages ADD COLUMN peak_gpu_memory_bytes INTEGER CHECK (peak_gpu_memory_bytes >= 0);
ALTER TABLE stages ADD COLUMN read_bytes INTEGER CHECK (read_bytes >= 0);
ALTER TABLE stages ADD COLUMN written_bytes INTEGER CHECK (written_bytes >= 0);
