# Consul policy of the servers. They may read and write all keys under PYEXEC_CONSUL_PREFIX, and create sessions, which show
# that a replica is alive. A session belongs to the node of the agent that the server uses. To restrict the policy, name
# those nodes instead of "".
#
#   consul acl policy create -name pyexec-server -rules @nomad/consul-policy.hcl
key_prefix "pyexec/" {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
