# The server with its own Docker daemon in the same allocation. The server cannot reach the Docker Engine of the host, but
# the daemon is a privileged container: an attacker who controls the daemon controls the host. docs/deployment.md
# compares the two jobs.
#
#   nomad job run -var image=registry.example/python-executor:0.1.0 nomad/pyexec-dind.nomad.hcl
#
# Each Nomad client needs: plugin "docker" { config { allow_privileged = true } }.

variable "image" {
  type        = string
  default     = "python-executor:0.1.0"
  description = "The server's image, as `make image` builds it. Every Nomad client must have it or be able to pull it."
}

variable "count" {
  type        = number
  default     = 3
  description = "Number of replicas. Each replica serves requests about every execution."
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "The datacenters where replicas may run."
}

variable "node_pool" {
  type        = string
  default     = "default"
  description = "The node pool where replicas run. Use machines that run nothing else."
}

variable "port" {
  type        = number
  default     = 8080
  description = "The port in the container. Nomad chooses the port on the host and registers it in Consul."
}

variable "consul_addr" {
  type        = string
  default     = "$${attr.unique.network.ip-address}:8500"
  description = "The Consul address, as host:port or https://host:port. It must be reachable from containers. The default is the agent on the same host, which must listen on the host's address."
}

variable "consul_prefix" {
  type        = string
  default     = "pyexec"
  description = "The prefix of this deployment's keys in Consul. nomad/consul-policy.hcl must use the same prefix."
}

variable "blob_url" {
  type        = string
  default     = ""
  description = "Blob store for large archives and outputs: s3://, gs:// or az://. If empty, they are stored in Consul, up to 8 MiB each."
}

variable "engine_image" {
  type        = string
  default     = "docker:28-dind"
  description = "The image of the Docker daemon."
}

variable "engine_args" {
  type        = list(string)
  default     = []
  description = "More arguments for dockerd, for example --registry-mirror=https://mirror.example. Each new daemon has to pull all images again."
}

variable "engine_cpu" {
  type        = number
  default     = 4000
  description = "CPU of the daemon and all sandboxes, in MHz."
}

variable "engine_disk" {
  type        = number
  default     = 20480
  description = "Disk for pulled images and environments, in MiB."
}

variable "default_image" {
  type        = string
  default     = "python:3.12-slim"
  description = "The image of programs that specify none."
}

variable "max_concurrent" {
  type        = number
  default     = 4
  description = "The maximum number of programs that run at the same time on one replica."
}

variable "sandbox_memory_mb" {
  type        = number
  default     = 16384
  description = "Memory of all sandboxes of one replica, in MiB. The daemon gets 1024 MiB more, and the memory of setups."
}

variable "max_setups" {
  type        = number
  default     = 2
  description = "The maximum number of setups (pulls of images and installations) at the same time on one replica."
}

variable "setup_memory_mb" {
  type        = number
  default     = 2048
  description = "The memory limit of one setup, in MiB, besides sandbox_memory_mb."
}

variable "stop_seconds" {
  type        = number
  default     = 15
  description = "The drain timeout in seconds: how long a replica that stops waits for running programs. Programs that still run are lost, because their engine stops too, so set it to the duration of the longest run that must not be lost. For values over 15, set the clients' max_kill_timeout (default 30 s) to at least 15 s more."
}

variable "log_level" {
  type        = string
  default     = "INFO"
  description = "The log level: DEBUG, INFO, WARNING or ERROR."
}

variable "cpu" {
  type        = number
  default     = 500
  description = "CPU of the server, in MHz."
}

variable "memory" {
  type        = number
  default     = 2048
  description = "Memory of the server, in MiB. It holds the code of each eval that waits: at most 100 (PYEXEC_MAX_QUEUED) of 16 MiB (PYEXEC_MAX_METADATA_MB)."
}

variable "disk" {
  type        = number
  default     = 2048
  description = "Disk of the server, in MiB, more than 100 for its logs. It holds uploads that cannot be streamed."
}

variable "auto_promote" {
  type        = bool
  default     = true
  description = "Continue a deployment as soon as the canary is ready. If false, it waits for `nomad deployment promote`."
}

variable "tags" {
  type        = list(string)
  default     = ["prometheus"]
  description = "Tags of the service in Consul, for example for Prometheus and your load balancer."
}

job "pyexec-dind" {
  type        = "service"
  datacenters = var.datacenters
  node_pool   = var.node_pool

  group "server" {
    count = var.count

    # Spread replicas over the hosts.
    spread {
      attribute = "${node.unique.id}"
    }

    update {
      max_parallel      = 1
      canary            = 1
      auto_promote      = var.auto_promote
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "15s"
      healthy_deadline  = "5m"
      progress_deadline = "${var.stop_seconds + 900}s" # replaced replicas drain in this time
    }

    # If Docker or Consul is unavailable, the server waits. It exits only if it cannot continue.
    restart {
      attempts = 3
      interval = "5m"
      delay    = "10s"
      mode     = "fail"
    }

    reschedule {
      delay          = "30s"
      delay_function = "exponential"
      max_delay      = "10m"
      unlimited      = true
    }

    # Deregister the service first, so that no new requests arrive when the drain begins.
    shutdown_delay = "5s"

    ephemeral_disk {
      size = var.disk
    }

    network {
      port "http" {
        to = var.port
      }
    }

    service {
      name     = "pyexec"
      port     = "http"
      provider = "consul"
      tags     = var.tags

      meta {
        metrics_path = "/metrics"
      }

      # Ready for requests; a deployment waits for it. The server answers 503 while Docker or Consul is unavailable.
      check {
        name     = "ready"
        type     = "http"
        path     = "/ready"
        interval = "10s"
        timeout  = "5s"
      }

      # Alive. A restart helps only if this check fails. A deployment waits for it too, because Nomad does not allow
      # check_restart otherwise; a server that is ready is alive anyway.
      check {
        name     = "alive"
        type     = "http"
        path     = "/health"
        interval = "10s"
        timeout  = "5s"

        check_restart {
          limit = 6
          grace = "60s"
        }
      }
    }

    # The daemon starts before the server and stops after it. Its socket is in the allocation directory and belongs to the
    # server's group.
    task "engine" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image      = var.engine_image
        privileged = true
        command    = "dockerd"
        args       = concat(["--host=unix://${NOMAD_ALLOC_DIR}/docker.sock", "--group=10001"], var.engine_args)
      }

      resources {
        cpu    = var.engine_cpu
        memory = var.sandbox_memory_mb + var.max_setups * var.setup_memory_mb + 1024
      }

      logs {
        max_files     = 2
        max_file_size = 20
      }
    }

    task "server" {
      driver = "docker"

      # SIGTERM starts the drain. The drain and the cleanup must end before SIGKILL.
      kill_signal  = "SIGTERM"
      kill_timeout = "${var.stop_seconds + 15}s"

      config {
        image           = var.image
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]

        mount {
          type   = "tmpfs"
          target = "/tmp"
        }

        healthchecks {
          disable = true # the checks of Consul are enough
        }
      }

      env {
        PYEXEC_PORT                = var.port
        PYEXEC_ADVERTISE_ADDR      = "http://${NOMAD_ADDR_http}"
        PYEXEC_CONSUL_ADDR         = var.consul_addr
        PYEXEC_CONSUL_PREFIX       = var.consul_prefix
        PYEXEC_DATA_DIR            = "${NOMAD_ALLOC_DIR}/data"
        PYEXEC_DOCKER_SOCKET       = "${NOMAD_ALLOC_DIR}/docker.sock"
        PYEXEC_ENV_CACHE_MB        = var.engine_disk
        PYEXEC_DEFAULT_IMAGE       = var.default_image
        PYEXEC_MAX_CONCURRENT      = var.max_concurrent
        PYEXEC_MAX_TOTAL_MEMORY_MB = var.sandbox_memory_mb
        PYEXEC_MAX_SETUPS          = var.max_setups
        PYEXEC_SETUP_MEMORY_MB     = var.setup_memory_mb
        PYEXEC_STOP_TIMEOUT        = var.stop_seconds
        PYEXEC_LOG_LEVEL           = var.log_level
        PYEXEC_LOG_FORMAT          = "json"
      }

      # Secrets and other environment variables come from a Nomad variable, each under its own name:
      #
      #   nomad var put nomad/jobs/pyexec-dind PYEXEC_CONSUL_TOKEN=... PYEXEC_API_TOKENS=... AWS_ACCESS_KEY_ID=...
      #
      # The variable must exist: the task waits for it. A stopping task can no longer read it, and with nomadVarExists it
      # would be signalled again during its drain, because the file would lose its secrets.
      #
      # With Vault, use a `vault` block and {{ with secret "kv/data/pyexec" }}{{ range $name, $value := .Data.data }}.
      template {
        destination = "${NOMAD_SECRETS_DIR}/server.env"
        env         = true
        change_mode = "restart"
        data        = <<-END
          {{ with "${var.blob_url}" }}PYEXEC_BLOB_URL={{ . | toJSON }}{{ end }}
          {{ with nomadVar "nomad/jobs/pyexec-dind" }}{{ range .Tuples }}
          {{ .K }}={{ .V | toJSON }}
          {{ end }}{{ end }}
        END
      }

      resources {
        cpu    = var.cpu
        memory = var.memory
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }
  }
}
