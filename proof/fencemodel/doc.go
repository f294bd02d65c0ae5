// Package fencemodel checks the rule that gives a lock over several nodes its fencing
// token, by visiting every state of a small world. It is a second description of the
// rule, which tests compare with that of the library.
//
// # The rule
//
// A node grants an attempt the larger of the attempt's floor and its own counter plus
// one, and keeps that as its counter. The attempt's token is the largest counter that
// any node answered. It completes once a quorum of nodes has answered exactly the token.
// As long as fewer have, it sends confirms to all others: a node where the keys are the
// attempt's raises its counter to the token, and answers with what it is then. Any node
// that answers so agrees, also one whose grant the attempt has not heard of. A release
// changes no counter, and may grant the key to a waiter. A waiter chooses its token once,
// when it has a quorum of votes: its validity is that of these votes, and no answer to a
// confirm renews it.
//
// What the rule promises are [P1], [P2] and [P3]. They are not the P1 and P2 of proof/README.md.
//
// # The world
//
// A [Model] has 3 or 4 nodes and 2 or 3 attempts. Each request and each answer takes any
// time, or forever; requests run after their attempt has given up, completed or released.
// Attempts hear of any quorum of the grants there are, and of the rest in any order.
// Counters and floors begin with any values of a small domain, so that floors are below,
// equal to or above the counters. [Model.Timed] says what is known of time:
//
//   - Untimed, a key may be gone from any node at any moment, and an attempt may complete
//     long after. That is a client that is paused after it has looked at the clock.
//   - Timed, the client's check of validity is right: no key goes before its attempt has
//     given up, released, or let its deadline pass, and after that the attempt does not
//     complete.
//
// The search is breadth-first, so that a run that breaks a property is a shortest one.
// States that differ only in the order of the nodes, or of attempts for the same keys,
// are one.
//
// # What stands for what
//
// Some events have no step of their own, because another one has at least their effects.
//
//   - A request that is refused, or lost, is one that never arrives. A lost answer is
//     one that is never heard.
//   - A release is a key that expires. It may come at any node, in any order with the
//     rest; a request that runs after it finds nothing.
//   - Giving up is to hear nothing more.
//   - An attempt begins with its first grant. Until then it has no effect.
//   - Every attempt may stand in every queue, and be the first. JOINs that only queue have
//     no step. A JOIN that finds the key its own is a push that came late, unless its floor
//     is above the counter: then it raises the counter to that.
//   - The vote of a waiter lasts as long as the node keeps the key, which may be longer
//     than the client counts on. When the key goes, the vote goes: the client's clock ended
//     it before. If the attempt's validity rests on it, that ends the attempt.
//   - A waiter that yields is an attempt that gives up, and another one.
//   - The time for which a node stays away after a loss of data ends with the attempts
//     that it has waited for. The floor of an attempt that begins later is above all
//     counters at the loss. That stands for clocks that count microseconds, within the skew.
//     So does the floor of a waiter that goes on waiting: each JOIN has a new one. An
//     attempt that has its quorum of votes joins no more.
//
// # What it does not cover
//
// More nodes, attempts or values than [Variants] and [Wide] list: five nodes; three attempts
// untimed, except for one world in Wide; more than one node that grants to an attempt
// again in a queue, but for one that has lost its data. A second loss of data. A holder
// that is extended beyond the time for which a node stays away. A JOIN that takes longer
// than that to arrive. A counter that expires or is evicted alone. Locks of several keys
// in queues: they do not join any. Whether an attempt ever completes, or how soon.
//
// # The library
//
// The model shares no code with the library. The tests tie them together: on a stage of nodes in
// memory the library takes runs of the model, step by step, and must come to the same counters,
// owners and fences; and the runs that break a wrong rule must not break the library's. The stage
// has three nodes, and neither queues nor extensions.
package fencemodel
