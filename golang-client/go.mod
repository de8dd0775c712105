module github.com/python-executor/golang-client

go 1.24.0

require (
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.9
	golang.org/x/sys v0.35.0
	golang.org/x/term v0.34.0
)

require github.com/inconshreveable/mousetrap v1.1.0 // indirect
