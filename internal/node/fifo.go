package node

// Queues shorter than fewDead are not swept of dead commands: those of claims that have
// ended. Dead commands accumulate in front of a server that hangs.
const fewDead = 1024

// fifo is a queue of commands. The zero fifo is empty.
type fifo struct {
	commands []Command
	first    int // the index of the next command; those before it have been taken
	limit    int // the length at which to sweep it
}

func (q *fifo) len() int { return len(q.commands) - q.first }

func (q *fifo) push(c Command) {
	if q.first > len(q.commands)/2 && q.first >= fewDead {
		n := copy(q.commands, q.commands[q.first:])
		clear(q.commands[n:])
		q.commands, q.first = q.commands[:n], 0
	}
	q.commands = append(q.commands, c)
}

// pop takes the first command. There must be one.
func (q *fifo) pop() Command {
	c := q.commands[q.first]
	q.commands[q.first] = Command{}
	if q.first++; q.first == len(q.commands) {
		q.commands, q.first = q.commands[:0], 0
	}
	return c
}

// grown reports whether the queue is twice as long as remove left it.
func (q *fifo) grown() bool { return q.len() >= max(q.limit, fewDead) }

// remove takes out the commands that are dead, and returns them.
func (q *fifo) remove(isDead func(*Command) bool) (dead []Command) {
	alive := q.commands[:0]
	for _, c := range q.commands[q.first:] {
		if isDead(&c) {
			dead = append(dead, c)
		} else {
			alive = append(alive, c)
		}
	}
	clear(q.commands[len(alive):])
	q.commands, q.first, q.limit = alive, 0, 2*len(alive)
	return dead
}
