"""The parts of the download stage: a URL list to planned shards, a URL to an image, images to a shard."""
