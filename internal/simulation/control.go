package simulation

import (
	"errors"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/upkeep"
	"github.com/hotspare/hotspare/internal/model"
)

// controllerActor is whom the log of evidence names.
const controllerActor = "coordinator/controllers"

// wake has the controllers look again, soon: now if none does, else after this round.
func (m *member) wake() {
	if !m.leads || !m.up {
		return
	}
	if m.busy {
		m.again = true
		return
	}
	m.busy, m.again = true, false
	reign := m.reign
	m.s.after(m.s.between(100*time.Microsecond, 3*time.Millisecond), func() { m.round(reign, 0, false) })
}

// round asks the controllers one after the other and proposes what each returns, one at a time.
func (m *member) round(reign, controller int, committed bool) {
	if !m.leads || m.reign != reign {
		return
	}
	if controller == 0 {
		m.view, _ = m.view.Missing(m.st.Hosts(), m.s.wall())
	}
	if controller == len(controllers) {
		m.busy = false
		if committed || m.again {
			m.wake()
		}
		return
	}
	cmds := controllers[controller](m)
	cmds = m.s.mutateCommands(m, cmds)
	m.proposeAll(reign, cmds, committed, func(c bool) { m.round(reign, controller+1, c) })
}

// controllers are those of the coordinator, in its order.
var controllers = []func(m *member) []*pb.Command{
	func(m *member) []*pb.Command { return failover.Advance(m.st, m.view, m.s.wall()) },
	func(m *member) []*pb.Command { return failover.Place(m.st, m.view) },
	func(m *member) []*pb.Command { return lease.Advance(m.st, m.view, m.s.wall()) },
	func(m *member) []*pb.Command {
		if c := lease.Dequeue(m.st, m.view, m.s.wall()); c != nil {
			return []*pb.Command{c}
		}
		return nil
	},
	func(m *member) []*pb.Command {
		if c := failover.Due(m.st, m.view, m.s.wall()); c != nil {
			return []*pb.Command{c}
		}
		return nil
	},
	func(m *member) []*pb.Command { return upkeep.Advance(m.st, m.view, m.s.wall()) },
	func(m *member) []*pb.Command {
		if proof := m.keeper.Advance(m.st, m.view); len(proof) > 0 || !m.s.chance(0.02) {
			return proof
		}
		return m.keeper.Improve(m.st, m.view)
	},
}

func (m *member) proposeAll(reign int, cmds []*pb.Command, committed bool, then func(bool)) {
	if len(cmds) == 0 {
		then(committed)
		return
	}
	m.propose(controllerActor, cmds[0], func(_ state.Result, err error) {
		switch {
		case err == nil:
			committed = true
		case errors.Is(err, errNotLeader), errors.Is(err, errUnknown), model.FaultOf(err) == model.FaultStale:
		default:
			m.s.fail("controllers", "a controller's command was refused: %v", err)
		}
		if m.leads && m.reign == reign {
			m.proposeAll(reign, cmds[1:], committed, then)
		}
	})
}

// ask makes a decision on the leader, as the handlers of the API do, and proposes it; a decision on
// what has changed meanwhile is made anew. An error is the answer to the user.
func (s *sim) ask(actor string, decide func(m *member) (*pb.Command, error), done func(state.Result, error)) {
	s.askAgain(actor, decide, done, 5)
}

func (s *sim) askAgain(actor string, decide func(*member) (*pb.Command, error), done func(state.Result, error), tries int) {
	m := s.raft.leader
	if m == nil || !m.leads {
		done(state.Result{}, errNotLeader)
		return
	}
	cmd, err := decide(m)
	if err != nil || cmd == nil {
		done(state.Result{}, err)
		return
	}
	m.propose(actor, cmd, func(r state.Result, err error) {
		if err != nil && model.FaultOf(err) == model.FaultStale && tries > 1 {
			s.askAgain(actor, decide, done, tries-1)
			return
		}
		done(r, err)
	})
}
