# The server with an engine of its own: a Docker daemon beside it, in the same allocation. The machine's engine is out of
# reach of the server, but the daemon is a privileged container: who breaks out of it has the machine all the same.
# docs/deployment.md compares the two ways.
#
#   nomad job run -var image=registry.example/python-executor:0.1.0 nomad/pyexec-dind.nomad.hcl
#
# Needs, on each client: plugin "docker" { config { allow_privileged = true } }.

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

variable "engine_image" {
  type        = string
  default     = "docker:28-dind"
  description = "The image of the Docker daemon."
}

variable "engine_args" {
  type        = list(string)
  default     = []
  description = "More arguments of dockerd, such as --registry-mirror=https://mirror.example: each new daemon pulls the images that programs name."
}

variable "engine_cpu" {
  type        = number
  default     = 4000
  description = "Processor time of the daemon and all sandboxes, MHz."
}

variable "engine_disk" {
  type        = number
  default     = 20480
  description = "Space for pulled images and environments, MiB."
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
  description = "Memory of all sandboxes of one replica, MiB; the daemon is given 1024 more."
}

variable "stop_seconds" {
  type        = number
  default     = 15
  description = "How long a stopping replica lets programs end. What still runs then is lost, since its engine goes, too: make it the longest run that must not be. Over 15, the clients' max_kill_timeout (30 s unless set) must be at least 15 s more."
}

variable "log_level" {
  type        = string
  default     = "INFO"
  description = "DEBUG, INFO, WARNING or ERROR."
}

variable "cpu" {
  type        = number
  default     = 500
  description = "Processor time of the server itself, MHz."
}

variable "memory" {
  type        = number
  default     = 512
  description = "Memory of the server itself, MiB."
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

job "pyexec-dind" {
  type        = "service"
  datacenters = var.datacenters
  node_pool   = var.node_pool

  group "server" {
    count = var.count

    # As many machines as there are.
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

    # Starts first and is stopped last. Its socket lies in the allocation's folder, for the server's group.
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
        memory = var.sandbox_memory_mb + 1024
      }

      logs {
        max_files     = 2
        max_file_size = 20
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
        PYEXEC_DOCKER_SOCKET       = "${NOMAD_ALLOC_DIR}/docker.sock"
        PYEXEC_ENV_CACHE_MB        = var.engine_disk
        PYEXEC_DEFAULT_IMAGE       = var.default_image
        PYEXEC_MAX_CONCURRENT      = var.max_concurrent
        PYEXEC_MAX_TOTAL_MEMORY_MB = var.sandbox_memory_mb
        PYEXEC_STOP_TIMEOUT        = var.stop_seconds
        PYEXEC_LOG_LEVEL           = var.log_level
        PYEXEC_LOG_FORMAT          = "json"
      }

      # Secrets, and whatever else a variable of the environment may say, each under its own name:
      #
      #   nomad var put nomad/jobs/pyexec-dind PYEXEC_CONSUL_TOKEN=... PYEXEC_API_TOKENS=... AWS_ACCESS_KEY_ID=...
      #
      # With Vault: a `vault` block, and {{ with secret "kv/data/pyexec" }}{{ range $name, $value := .Data.data }}.
      template {
        destination = "${NOMAD_SECRETS_DIR}/server.env"
        env         = true
        change_mode = "restart"
        data        = <<-END
          {{ with "${var.blob_url}" }}PYEXEC_BLOB_URL={{ . | toJSON }}{{ end }}
          {{ if nomadVarExists "nomad/jobs/pyexec-dind" }}{{ with nomadVar "nomad/jobs/pyexec-dind" }}{{ range .Tuples }}
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
