package pyexec_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

// answering is the address of a server that always answers so. In a program it would be a real one's.
func answering(kind string, status int, body string) string {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", kind)
		writer.WriteHeader(status)
		fmt.Fprint(writer, body)
	}))
	return server.URL
}

const events = `id: 1.0
event: submitted
data: {"execution_id": "exe_1", "type": "submitted"}

id: 2.3
event: output
data: {"stream": "stdout", "data": "NDIK"}

id: 3.3
event: finished
data: {"execution_id": "exe_1", "status": "completed", "exit_code": 0, "stdout": "42\n"}

`

func Example() {
	client, err := pyexec.New(answering("text/event-stream", 200, events)) // http://localhost:8080
	if err != nil {
		panic(err)
	}
	defer client.Close()
	result, err := client.Run(context.Background(), pyexec.Text("print(6 * 7)"),
		pyexec.WithTimeout(10*time.Second), pyexec.WithMemoryMB(256))
	if err != nil {
		panic(err) // the server refused it, or cannot be reached
	}
	fmt.Print(result.Status, " ", *result.ExitCode, " ", result.Stdout)
	// Output: completed 0 42
}

func ExampleClient_Stream() {
	client, err := pyexec.New(answering("text/event-stream", 200, events))
	if err != nil {
		panic(err)
	}
	for event, err := range client.Stream(context.Background(), pyexec.Text("print(6 * 7)")) {
		if err != nil {
			panic(err)
		}
		switch event := event.(type) {
		case pyexec.Lifecycle:
			fmt.Println("now it is", event.Type)
		case pyexec.Output:
			os.Stdout.Write(event.Data)
		case pyexec.Ended:
			fmt.Println("exit code", *event.Result.ExitCode)
		}
	}
	// Output:
	// now it is submitted
	// 42
	// exit code 0
}

func ExampleClient_Eval() {
	answer := `{"execution_id": "exe_1", "status": "completed", "exit_code": 0, "result": "42"}`
	client, err := pyexec.New(answering("application/json", 200, answer))
	if err != nil {
		panic(err)
	}
	result, err := client.Eval(context.Background(), "6 * 7")
	if err != nil {
		panic(err)
	}
	fmt.Println(*result.Value)
	// Output: 42
}

func ExampleClient_Submit() {
	client, err := pyexec.New(answering("application/json", 202, `{"execution_id": "exe_1"}`))
	if err != nil {
		panic(err)
	}
	id, err := client.Submit(context.Background(), pyexec.Files(map[string]string{
		"main.py":   "import helper\nprint(helper.ANSWER)",
		"helper.py": "ANSWER = 42",
	}))
	if err != nil {
		panic(err)
	}
	fmt.Println(id) // client.Wait(ctx, id) returns once it has ended
	// Output: exe_1
}

func ExampleError() {
	answer := `{"error": "config.memory_mb must be at least 16, not 1", "code": "invalid_request", "field": "config.memory_mb"}`
	client, err := pyexec.New(answering("application/json", 400, answer))
	if err != nil {
		panic(err)
	}
	_, err = client.Run(context.Background(), pyexec.Text("x"), pyexec.WithMemoryMB(1))
	var refused *pyexec.Error
	if errors.Is(err, pyexec.ErrInvalidRequest) && errors.As(err, &refused) {
		fmt.Println(refused.Status, refused.Field)
	}
	// Output: 400 config.memory_mb
}
