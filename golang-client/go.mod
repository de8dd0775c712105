module github.com/python-executor/golang-client

go 1.24
