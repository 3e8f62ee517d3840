"""What runs where and when: the one-machine stack, the worker, the gateway, the deployments."""
