"""From a model's facts and the cluster's nodes to the GPUs and the tensor parallelism of one replica; pure."""
