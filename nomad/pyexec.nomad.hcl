# The server on the machines' own Docker Engines, by their sockets. Who takes over the server has such a machine:
# docs/security.md says what follows from that, docs/deployment.md how to run this.
#
#   nomad job run -var image=registry.example/python-executor:0.1.0 nomad/pyexec.nomad.hcl
#
# Needs, on each client: plugin "docker" { config { volumes { enabled = true } } }, for the socket.

variable "image" {
  type        = string
  default     = "python-executor:0.1.0"
  description = "The server's image, as `make image` builds it: a name that every client can pull, or has."
}

variable "count" {
  type        = number
  default     = 3
  description = "How many replicas; each answers for all executions."
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Where they may run."
}

variable "node_pool" {
  type        = string
  default     = "default"
  description = "The pool of clients they run on: best one of machines that do nothing else."
}

variable "port" {
  type        = number
  default     = 8080
  description = "The port in the container; Nomad picks the one on the machine, and Consul tells it."
}

variable "consul_addr" {
  type        = string
  default     = "$${attr.unique.network.ip-address}:8500"
  description = "Consul, as host:port or https://host:port, reached from a container: by default the agent of the same machine, which must listen on that address."
}

variable "consul_prefix" {
  type        = string
  default     = "pyexec"
  description = "Where in Consul's store this deployment lies; nomad/consul-policy.hcl names it, too."
}

variable "blob_url" {
  type        = string
  default     = ""
  description = "Large archives and outputs, as s3://, gs:// or az://; empty: in Consul, up to 8 MiB each."
}

variable "docker_socket" {
  type        = string
  default     = "/var/run/docker.sock"
  description = "The engine's socket on the machine."
}

variable "docker_gid" {
  type        = string
  default     = "999"
  description = "The group that may use the socket: `stat -c %g /var/run/docker.sock` on a client."
}

variable "default_image" {
  type        = string
  default     = "python:3.12-slim"
  description = "The image of a program that names none."
}

variable "max_concurrent" {
  type        = number
  default     = 4
  description = "Programs that run at once on one replica."
}

variable "sandbox_memory_mb" {
  type        = number
  default     = 16384
  description = "Memory of all sandboxes of one replica, MiB. Nomad does not see them: keep as much out of its hands, by `reserved` of the client."
}

variable "stop_seconds" {
  type        = number
  default     = 15
  description = "How long a stopping replica lets programs end. What still runs then is taken over by another replica on the same engine. Over 15, the clients' max_kill_timeout (30 s unless set) must be at least 15 s more."
}

variable "log_level" {
  type        = string
  default     = "INFO"
  description = "DEBUG, INFO, WARNING or ERROR."
}

variable "cpu" {
  type        = number
  default     = 500
  description = "Processor time of the server itself, MHz; sandboxes are the engine's."
}

variable "memory" {
  type        = number
  default     = 512
  description = "Memory of the server itself, MiB; sandboxes are the engine's."
}

variable "disk" {
  type        = number
  default     = 2048
  description = "Disk of the server itself, MiB: uploads on their way that cannot be streamed."
}

variable "auto_promote" {
  type        = bool
  default     = true
  description = "Whether a new version goes on once its canary is ready; false waits for `nomad deployment promote`."
}

variable "tags" {
  type        = list(string)
  default     = ["prometheus"]
  description = "Tags of the service in Consul; one that your Prometheus looks for, and those of your load balancer."
}

job "pyexec" {
  type        = "service"
  datacenters = var.datacenters
  node_pool   = var.node_pool

  group "server" {
    count = var.count

    # One to a machine as long as there are machines; a canary, or one that moves, may share.
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
      progress_deadline = "15m"
    }

    # The server itself waits for Docker and Consul when they are away; it ends only when something is wrong.
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

    # Nobody is sent here any more before it stops taking work.
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

      # Whether it takes work: 503 while Docker or Consul is away.
      check {
        name     = "ready"
        type     = "http"
        path     = "/ready"
        interval = "10s"
        timeout  = "5s"
      }

      # Whether it lives at all: only then does starting it again help.
      check {
        name      = "alive"
        type      = "http"
        path      = "/health"
        interval  = "10s"
        timeout   = "5s"
        on_update = "ignore"

        check_restart {
          limit = 6
          grace = "60s"
        }
      }
    }

    task "server" {
      driver = "docker"

      # SIGTERM begins the drain; it and the clearing away must be over before SIGKILL.
      kill_signal  = "SIGTERM"
      kill_timeout = "${var.stop_seconds + 15}s"

      config {
        image           = var.image
        ports           = ["http"]
        group_add       = [var.docker_gid]
        volumes         = ["${var.docker_socket}:/var/run/docker.sock"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]

        mount {
          type   = "tmpfs"
          target = "/tmp"
        }

        healthchecks {
          disable = true # Consul's are enough
        }
      }

      env {
        PYEXEC_PORT                = var.port
        PYEXEC_ADVERTISE_ADDR      = "http://${NOMAD_ADDR_http}"
        PYEXEC_CONSUL_ADDR         = var.consul_addr
        PYEXEC_CONSUL_PREFIX       = var.consul_prefix
        PYEXEC_DATA_DIR            = "${NOMAD_ALLOC_DIR}/data"
        PYEXEC_DOCKER_SOCKET       = "/var/run/docker.sock"
        PYEXEC_DEFAULT_IMAGE       = var.default_image
        PYEXEC_MAX_CONCURRENT      = var.max_concurrent
        PYEXEC_MAX_TOTAL_MEMORY_MB = var.sandbox_memory_mb
        PYEXEC_STOP_TIMEOUT        = var.stop_seconds
        PYEXEC_LOG_LEVEL           = var.log_level
        PYEXEC_LOG_FORMAT          = "json"
      }

      # Secrets, and whatever else a variable of the environment may say, each under its own name:
      #
      #   nomad var put nomad/jobs/pyexec PYEXEC_CONSUL_TOKEN=... PYEXEC_API_TOKENS=... AWS_ACCESS_KEY_ID=...
      #
      # With Vault: a `vault` block, and {{ with secret "kv/data/pyexec" }}{{ range $name, $value := .Data.data }}.
      template {
        destination = "${NOMAD_SECRETS_DIR}/server.env"
        env         = true
        change_mode = "restart"
        data        = <<-END
          {{ with "${var.blob_url}" }}PYEXEC_BLOB_URL={{ . | toJSON }}{{ end }}
          {{ if nomadVarExists "nomad/jobs/pyexec" }}{{ with nomadVar "nomad/jobs/pyexec" }}{{ range .Tuples }}
          {{ .K }}={{ .V | toJSON }}
          {{ end }}{{ end }}{{ end }}
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
