package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

const closeLimit = 10 * time.Second

// opening is a session that is being opened. If a signal arrives meanwhile, it is closed as soon as it is open.
type opening struct {
	console                      *console
	lock                         sync.Mutex
	session                      *pyexec.Session
	keep, interrupted, hasAnswer bool
}

// open opens the session. It returns nil if a signal has arrived: then the session is closed.
func (o *opening) open(
	ctx context.Context, client *pyexec.Client, options []pyexec.Option,
) (*pyexec.Session, error) {
	session, err := client.OpenSession(ctx, options...)
	o.console.statusLine.close()
	o.lock.Lock()
	defer o.lock.Unlock()
	o.hasAnswer = ctx.Err() == nil
	if err != nil {
		return nil, err
	}
	if o.interrupted {
		return nil, closeSession(session)
	}
	o.session = session
	return session, nil
}

// use takes a session that is open already, and stays open.
func (o *opening) use(session *pyexec.Session) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.session, o.keep = session, true
}

func (o *opening) isOpen() bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.session != nil
}

// onInterrupt returns true if the session is not open yet: then open closes it.
func (o *opening) onInterrupt() bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	if o.session != nil {
		return false
	}
	o.interrupted = true
	o.console.error("closing the session as soon as it is open (press Ctrl-C again to exit at once)")
	return true
}

// close closes the session, unless it stays open. Call it at the end of the command.
func (o *opening) close() error {
	o.lock.Lock()
	session, isCancelled := o.session, o.interrupted && !o.hasAnswer
	o.lock.Unlock()
	if isCancelled {
		// The server stops opening a session if the connection is closed, but it may just have opened it.
		o.console.error("cancelled; a session may still be open: check with python-executor session list")
	}
	if session == nil || o.keep {
		return nil
	}
	return closeSession(session)
}

// closeSession closes a session. The error of a failure says how to close it later.
func closeSession(session *pyexec.Session) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := session.Close(ctx)
	if err == nil {
		return nil
	}
	reason := err.Error()
	if ctx.Err() != nil {
		reason = fmt.Sprintf("no answer within %.0f s", closeLimit.Seconds())
	}
	return fmt.Errorf("the session is still open: %s; close it with: python-executor session close %s", reason, session.ID)
}
