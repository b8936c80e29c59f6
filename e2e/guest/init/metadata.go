package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// metadataAddress is where a lent guest reaches its host's agent.
	metadataAddress = "169.254.169.254"
	// metadataLimit bounds one question.
	metadataLimit = 2 * time.Second
	// maxAnswer bounds what is read of an answer: user-data has at most 64 KiB.
	maxAnswer = 128 << 10
)

// preemption is what the service tells, as far as the guest shows it.
type preemption struct {
	State    string `json:"state"`
	Action   string `json:"action"`
	Deadline string `json:"deadline"`
	Failover string `json:"failover"`
	Reason   string `json:"reason"`
}

// metadataState is what GET / tells about the metadata service.
type metadataState struct {
	Lease    string   `json:"lease"`
	UserData string   `json:"user_data"`
	SSHKeys  []string `json:"ssh_keys"`
	// Preemption is what was last told; it stays when it is over. Notices counts the failovers told.
	Preemption *preemption `json:"preemption"`
	Notices    int         `json:"notices"`
	// Told: a preemption is announced now.
	Told bool `json:"told"`
}

// told follows the metadata service.
type told struct {
	client http.Client
	base   string

	mu      sync.Mutex
	current metadataState // guarded by mu
}

func newTold() *told {
	return &told{
		base:   "http://" + metadataAddress,
		client: http.Client{Timeout: metadataLimit, Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// follow asks again and again. What it hears first is kept: it does not change while a VM runs.
func (t *told) follow(every, readyAfter time.Duration) {
	known := false
	for {
		if !known {
			known = t.learn()
		}
		t.poll(readyAfter)
		time.Sleep(every)
	}
}

// learn takes lease, user-data and keys, and says whether the service has answered.
func (t *told) learn() bool {
	var lease struct {
		Name string `json:"name"`
	}
	code, text, err := t.ask(http.MethodGet, "/v1/lease")
	if err != nil || code != http.StatusOK || json.Unmarshal([]byte(text), &lease) != nil {
		return false
	}
	_, user, err := t.found("/latest/user-data")
	if err != nil {
		return false
	}
	var keys []string
	for i := 0; ; i++ {
		there, key, err := t.found(fmt.Sprintf("/latest/meta-data/public-keys/%d/openssh-key", i))
		if err != nil {
			return false
		}
		if !there {
			break
		}
		keys = append(keys, strings.TrimSpace(key))
	}
	t.mu.Lock()
	t.current.Lease, t.current.UserData, t.current.SSHKeys = lease.Name, user, keys
	t.mu.Unlock()
	fmt.Printf("hotspare-guest belongs to lease %s, with %d bytes of user-data and %d ssh keys\n", lease.Name, len(user), len(keys))
	return true
}

// found asks for something that may not be there.
func (t *told) found(path string) (there bool, text string, err error) {
	code, text, err := t.ask(http.MethodGet, path)
	switch {
	case err != nil:
		return false, "", err
	case code == http.StatusNotFound:
		return false, "", nil
	case code != http.StatusOK:
		return false, "", fmt.Errorf("%s: status %d", path, code)
	}
	return true, text, nil
}

// poll asks once whether the guest is preempted.
func (t *told) poll(readyAfter time.Duration) {
	code, text, err := t.ask(http.MethodGet, "/v1/preemption")
	var p preemption
	if err != nil || code == http.StatusOK && json.Unmarshal([]byte(text), &p) != nil {
		return
	}
	t.mu.Lock()
	fresh := code == http.StatusOK && (!t.current.Told || t.current.Preemption.Failover != p.Failover)
	t.current.Told = code == http.StatusOK
	if t.current.Told {
		t.current.Preemption = &p
	}
	if fresh {
		t.current.Notices++
	}
	t.mu.Unlock()
	if !fresh {
		return
	}
	fmt.Printf("hotspare-guest is told: %s by %s, failover %s: %s\n", p.Action, p.Deadline, p.Failover, p.Reason)
	if readyAfter < 0 {
		return
	}
	time.Sleep(readyAfter)
	if code, _, err := t.ask(http.MethodPost, "/v1/preemption/ready"); err != nil || code != http.StatusAccepted {
		fmt.Printf("hotspare-guest cannot say that it is ready: %d, %v\n", code, err)
		return
	}
	fmt.Println("hotspare-guest is ready to be taken")
}

func (t *told) ask(method, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, t.base+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, string(text), err
}

func (t *told) state() metadataState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}
