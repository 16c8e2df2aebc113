"""Pods without Kubernetes: what a kubelet, a Deployment controller and kube-proxy do, as far as one machine needs it.

`pagoda local up` runs the operator's own loop over the in-memory cluster and lets this package do the nodes' part: the
pods' commands become local processes, probed and restarted as a kubelet would, behind one TCP proxy.
"""
