# What the servers may do in Consul, and nothing more: everything below PYEXEC_CONSUL_PREFIX, and sessions, by which a
# replica is known to live. A session belongs to the node of the agent that a server talks to: where those are known,
# name them instead of all ("").
#
#   consul acl policy create -name pyexec-server -rules @nomad/consul-policy.hcl
key_prefix "pyexec/" {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
