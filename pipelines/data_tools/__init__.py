"""The commands `vlp data`: what a folder of shards holds, whether it is whole, new folders of old ones."""
