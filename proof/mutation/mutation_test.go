// Package mutation plants mistakes in the library, one at a time, and checks that the suite
// catches each: a suite that misses one proves nothing. A mistake is planted in a copy that only
// the compiler sees (go test -overlay), so no user's build can contain it.
package mutation

import (
	_ "github.com/redis-kit/redlock" // so that go test does not reuse a result from before a change
)

// mistake is one that some lock library has made, or could make.
type mistake struct {
	name     string
	file     string // from the root of the repository
	old, new string
	run      command // the go test that must fail
	caught   string  // must be in its output
}

// command is a go test.
type command struct {
	module string // its directory, from the root of the repository
	args   []string
}

// test runs tests of a package of the library.
func test(pkg, run string) command {
	return command{".", []string{pkg, "-run", "^(" + run + ")$"}}
}

// simulated runs tests of proof/simulation.
func simulated(run string) command {
	return command{"proof", []string{"./simulation", "-run", "^(" + run + ")$"}}
}

// simulation runs TestSimulation with a number of histories.
func simulation(histories string) command {
	run := simulated("TestSimulation")
	run.args = append(run.args, "-sim.histories", histories)
	return run
}

// replay runs the counterexamples of proof/fencemodel over the library.
func replay() command {
	return command{"proof", []string{"./fencemodel", "-run", "^TestTheLibrarySurvivesTheRunsThatBreakAWrongRule$"}}
}

// replayed has the mistakes in the rule of fences that replay must catch, too, by the counterexample
// of the model with the same mistake.
var replayed = map[string]string{
	"the largest number is the fence, and no node is told":      "largest_counter_of_the_quorum,_nothing_written_back/P2",
	"a node that has counted further counts as one that agrees": "token_from_the_first_grant_alone,_timed/P3",
}

const (
	hold      = "internal/keeper/hold.go"
	handler   = "internal/node/handler.go"
	settle    = "internal/node/settle.go"
	poll      = "internal/quorum/poll.go"
	clock     = "internal/clock/jump.go"
	validity  = "internal/clock/clock.go"
	extending = "internal/keeper/extend.go"
	acquire   = "acquire.go"
	breaker   = "internal/node/breaker.go"
	greeting  = "internal/redisnode/handshake.go"
	pipeline  = "internal/redisnode/pipeline.go"
	scheduler = "internal/keeper/schedule.go"
	rehearsal = "internal/redisnode/features.go"

	candidate = "internal/waitqueue/candidate.go"
	votes     = "internal/waitqueue/votes.go"
	timer     = "internal/waitqueue/timer.go"
	waiter    = "internal/waitqueue/waiter.go"
	localQ    = "internal/waitqueue/localqueue.go"
	handoff   = "internal/waitqueue/handoff.go"
	settling  = "internal/contest/contest.go"
	queue     = "internal/waitqueue/queue.go"
	queueLua  = "internal/redisnode/queue.lua"
	fence     = "fence.go"
	waiting   = "./internal/waitqueue"
	contests  = "./internal/contest"
)

var mistakes = []mistake{
	{"validity counted from the end of the attempt", acquire,
		"start.Add(l.clock.Validity(a.ttl)),", "l.clock.Now().Add(l.clock.Validity(a.ttl)),",
		simulation("5000"), ": P"},
	{"validity counted from the end of the extension", extending,
		"h.advance(start.Add(k.clock.Validity(ttl)))", "h.advance(k.clock.Now().Add(k.clock.Validity(ttl)))",
		test("./internal/keeper", "TestValidityCountsFromTheStartOfTheRound"), "TestValidityCounts"},
	{"no drift", validity,
		"return ttl - time.Duration(float64(ttl)*c.drift) - Margin", "return ttl",
		simulation("5000"), ": P2"},
	{"the keys are released when the grace begins", hold,
		"waits := left > 0 && !h.done && !k.closed; waits {", "waits := left > 0 && !h.done && !k.closed; waits && left < 0 {",
		test(".", "TestNoOtherProcessHasTheLockDuringItsGrace"), "TestNoOtherProcess"},
	{"a late extension revives a lock", extending,
		"if old < 0 || now >= clock.Instant(old) {", "if old < 0 && now < 0 {",
		test("./internal/keeper", "TestALateQuorumRevivesNothing"), "TestALateQuorum"},
	{"keys that an extension created count", handler,
		"return quorum.Reply{Vote: quorum.Refused, Err: errGone}", "return quorum.Reply{Vote: quorum.Granted}",
		test("./internal/keeper", "TestAMissingKeyIsRefilledAndNotCounted"), "TestAMissingKey"},
	{"one token for all attempts", acquire,
		"node.Tag(node.AttemptToken(age),", "node.Tag(node.AttemptToken(age)[:0]+\"always the same\",",
		simulation("5000"), ": P"},
	{"a quorum is half of the nodes", "internal/quorum/quorum.go",
		"return n/2 + 1", "return (n + 1) / 2",
		simulation("5000"), ": P"},
	{"a failed attempt is not taken back", acquire,
		"	a.locker.nodes.Abandon(lock.claim)\n", "",
		test(".", "TestAFailedAttemptDoesNotBlockTheNext"), "TestAFailedAttempt"},
	{"what is ambiguous is forgotten", settle,
		"c.Outcome == Unknown && !errors.Is(c.Err, ErrNotRun)", "c.Outcome == Unknown && !errors.Is(c.Err, ErrNotRun) && false",
		test("./internal/node", "TestALostReplyIsAmbiguousAndReleased"), "Should be zero"},
	{"a release is answered by its own clean-up", settle,
		"if p.phase == done && p.mayHold() && !s.node.closed {", "if c.Claim.Ended() && p.mayHold() && !s.node.closed {",
		test("./internal/node", "TestAReleaseAmongLateExtensionsFindsWhatItDeletes"), "between_the_end"},
	{"a release settles the extensions that are on their way too", settle,
		"p.spent, p.acquired = true, false\n", "p.spent, p.acquired = true, false\n	}\n	if c.Outcome == Done {\n		p.extended = false\n",
		test("./internal/node", "TestAReleaseAmongLateExtensionsFindsWhatItDeletes"), "Should be zero"},
	{"a late grant is left behind", settle,
		"if p.phase == done && p.mayHold() && !s.node.closed {", "if false {",
		test("./internal/node", "TestAnAttemptThatWasGivenUpLeavesNothingInWhateverOrder"), "Should be zero"},
	{"the ctx ends only with the next extension", hold,
		"	h.cancel(cause)\n", "	time.AfterFunc(100*time.Millisecond, func() { h.cancel(cause) })\n",
		test("./internal/keeper", "TestContextEndsExactlyWithValidity"), "TestContextEnds"},
	{"definite refusals are waited out", extending,
		"case tally.Denied():", "case false:",
		test("./internal/keeper", "TestDefiniteRefusalsCountAfterAFailureToo"), "TestDefinite"},
	{"a hung node is waited for", poll,
		"	p.outcome = p.tally.Verdict()\n", "	if b := &p.tally; b.granted+b.refused+b.failed == p.panel.n {\n		p.outcome = b.Verdict()\n	}\n",
		test("./internal/quorum", "TestWaitSettlesWithoutWaitingForTheSlow"), "one_hung_of_three"},
	{"a prefix of the token is enough", "internal/redisnode/release.lua",
		"if owner == ARGV[1] then", "if string.find(owner or '', ARGV[1], 1, true) == 1 then",
		test("./internal/redisnode", "TestScripts"), "TestScripts"},
	{"the wall clock is not looked at", clock,
		"stepped >= gain ||", "",
		test("./internal/keeper", "TestTheWallClockEndsAHoldSoonerAndNeverLater"), "at once for every caller"},
	{"a wall clock that was set back hides a suspension", clock,
		"|| stepped < -slack)", ")",
		test("./internal/clock", "TestAWallClockThatWasSetBackHidesNoSuspension"), "suspended for 2 h"},
	{"CLOCK_BOOTTIME is not looked at", clock,
		"slept = l.slept - before.slept", "slept = 0",
		test("./internal/clock", "TestASuspensionCountsOnceThoughBothClocksTellOfIt"), "set back by as much at the same time"},
	{"what was not sent is unanswered", poll,
		"since.Before(p.start) {", "true {",
		test("./internal/quorum", "TestWhatWaitsForABusyNodeIsNotUnanswered"), "TestWhatWaits"},
	{"what a busy node has not come to is unanswered", "internal/node/flight.go",
		"			other.since = now\n", "			other.since = other.sent\n",
		simulated("TestABurstThatKeepsTheNodesBusyIsNotAFailure"), "TestABurstThatKeeps"},
	{"any answer is progress with all that was sent", "internal/node/flight.go",
		"if other.sent.Add(shuffle).After(f.sent) {", "if f.sent.After(time.Time{}) {",
		test("./internal/node", "TestAnAnswerIsProgressWithWhatWasSentLaterOnly"), "TestAnAnswerIsProgress"},
	{"a poll is used again before all votes are in", poll,
		"	p.closed, p.follow = true, nil\n", "	p.closed, p.follow, p.refs = true, nil, 1\n",
		test("./internal/quorum", "TestALateVoteCountsNowhere"), "TestALateVote"},
	{"a success that has become impossible is waited for", poll,
		"|| !over.After(now):", "|| false:",
		test("./internal/quorum", "TestNothingIsWaitedForBeyondTheLimit"), "TestNothingIsWaitedFor"},
	{"a lock by WithMaxHold is waited for as long as its ttl", acquire,
		"max(lasts, minNodeTimeout)", "l.clock.Validity(a.ttl)",
		test(".", "TestAnAcquisitionDoesNotOutliveItsValidity"), "TestAnAcquisition"},
	{"extensions are swallowed while a node is down", breaker,
		"	s.wakeWorker(claimLane)\n	s.wakeWorker(extensionLane)\n", "	s.wakeWorker(claimLane)\n",
		test("./internal/node", "TestCommandsForAServerThatIsDownGoOutWhenItAnswers"), "TestCommandsForAServer"},
	{"releases are swallowed when a node goes down", breaker,
		"		if c.releases() {\n", "		if false {\n",
		test("./internal/node", "TestCommandsForAServerThatIsDownGoOutWhenItAnswers|TestEachVoterIsToldOnceAndNoKeyStays"), "keys are left"},
	{"all servers of a Cluster have one queue", "internal/node/node.go",
		"	s, ok := n.servers[name]\n", "	name = \"\"\n	s, ok := n.servers[name]\n",
		test("./internal/node", "TestAServerThatHangsHoldsUpNoOther"), "TestAServerThatHangs"},
	{"an extension stays in the queue of the server that had its keys", "internal/node/extend.go",
		"pending.server.extensions.remove(pending)", "pending.index = 0",
		test("./internal/node", "TestExtensionsFollowTheirKeysToAnotherServer"), "it is sent once"},
	{"a release that deleted an extension's key settles the acquisition", settle,
		"if c.Outcome == Done && !p.refills {", "if c.Outcome == Done {",
		test("./internal/node", "TestEachVoterIsToldOnceAndNoKeyStays"), "keys are left"},
	{"overdue extensions pile up", "internal/node/extensions.go",
		"case !due.IsZero() && due.Before(now):", "case false && due.Before(now):",
		test("./internal/node", "TestExtensionsDoNotPileUpInFrontOfANodeThatIsAway"), "what is overdue is dropped"},
	{"a refusal to shake hands explains every later failure", greeting,
		"	g.stage.CompareAndSwap(refusing, greeted)\n", "",
		test("./internal/redisnode", "TestAConnectionInUseSpeaksForItself"), "TestAConnectionInUse"},
	{"the refusals of an old round end a hold", extending,
		"case int64(start) < h.granted.Load():", "case false:",
		test("./internal/keeper", "TestALateRefusalOfAnOlderRoundChangesNothing"), "not with the refusals"},
	{"every second try is skipped through a middleware", scheduler,
		"h.extendAgain = true // at once", "h.extendAgain = false // at once",
		test("./internal/keeper", "TestFourTriesFitBeforeTheDeadline"), "middleware=true"},
	{"each extension through a middleware has a goroutine at once", "internal/keeper/turns.go",
		"if t.count == t.most {", "if t.count < 0 {",
		test("./internal/keeper", "TestExtensionsThroughAMiddlewareAreBounded"), "TestExtensionsThrough"},
	{"extensions that are stuck hold up all others", "internal/keeper/turns.go",
		"stuck := max(shortest,", "stuck := max(time.Hour,",
		test("./internal/keeper", "TestExtensionsThatAreStuckHoldUpNoOthers"), "TestExtensionsThatAreStuck"},
	{"a grace costs tries", scheduler,
		"(h.threshold-h.options.Grace)/tries", "h.threshold/tries",
		test("./internal/keeper", "TestFourTriesFitBeforeTheDeadline"), "grace=40ms"},
	{"a new hold's timer waits for the Keeper", hold,
		"	h.arm()\n\n	k.mu.Lock()\n	defer k.mu.Unlock()\n", "	k.mu.Lock()\n	defer k.mu.Unlock()\n	h.arm()\n",
		test("./internal/keeper", "TestANewHoldsDeadlineDoesNotWaitForTheKeeper"), "while the Keeper's mutex was held"},

	{"a grant counts from when it is told of", votes,
		"return c.sent[s.vote%joinWindow].Add(", "return c.queue.clock.Now().Add(",
		test(waiting, "TestALatePushIsNoLongerVote"), "TestALatePush"},
	{"a grant counts from the last Join", votes,
		"c.sent[s.vote%joinWindow]", "c.sent[c.number%joinWindow]",
		test(waiting, "TestAGrantIsValidForAsLongAsAQuorumIs"), "TestAGrantIsValid"},
	{"a grant that the node denies counts", "internal/waitqueue/nodestate.go",
		"s.vote > 0 && s.vote >= s.voidBelow", "s.vote > 0",
		test(waiting, "TestAVoteThatANodeNoLongerHoldsIsVoid"), "granted"},
	{"a window has no drift", votes,
		".Add(c.queue.clock.Validity(c.window))", ".Add(c.window)",
		test(waiting, "TestALatePushIsNoLongerVote"), "TestALatePush"},
	{"a grant is valid for as long as its latest vote", votes,
		"c.win(valid[len(valid)-need], ", "c.win(valid[len(valid)-1], ",
		test(waiting, "TestAGrantIsValidForAsLongAsAQuorumIs"), "TestAGrantIsValid"},
	{"both of two candidates think that they came first", votes,
		"func(s nodeState) bool { return c.isYoungerThan(s.owner) }", "func(s nodeState) bool { return false && c.isYoungerThan(s.owner) }",
		test(waiting, "TestSplitVotesEnd"), "apart=100ms"},
	{"of two that came at once both think that they were first", votes,
		" || order == c.order && token < c.claim.Token", "",
		test(waiting, "TestSplitVotesEnd"), "apart=0s"},
	{"one that waits keeps a vote from the holder", timer,
		"	c.holder = c.quorumOwner()\n", "",
		test(".", "TestAWaiterKeepsNoVoteFromAHolder"), "TestAWaiterKeepsNoVote"},
	{"one that waits takes a vote again that it has left to the holder", timer,
		"c.ceded = c.renew()", "c.renew()",
		test(".", "TestAWaiterKeepsNoVoteFromAHolder"), "node 0"},
	{"what is given back is not released", queue,
		"	q.release(g.Claim)\n	q.Released", "	q.Released",
		test(waiting, "TestFirstComeFirstServed"), "TestFirstCome"},
	{"a grant that cannot be used is kept", "wait.go",
		"		a.locker.queue.Return(a.keys[0], g)\n", "",
		test(".", "TestAGrantThatCannotBeUsedGoesToTheNext"), "TestAGrantThat"},
	{"a Waiter that leaves misses what is passed to it", waiter,
		"	w.give(g)           // under the mutex: a Leave in between would find w neither taken nor granted\n", "	q.mu.Unlock()\n	w.grant <- g\n	q.mu.Lock()\n",
		test(waiting, "TestAKeyIsPassedBeforeItsWaiterCanLeave"), "TestAKeyIsPassed"},
	{"a localQueue is dropped while one of its Waiters is taken", localQ,
		" && l.taken == 0", "",
		test(waiting, "TestAWaiterThatWasTakenKeepsItsLocalQueue"), "TestAWaiterThatWasTaken"},
	{"a lock that was lost stays the process's", "lock.go",
		"func (o *owner) Ended() { (*Lock)(o).noteEnded() }", "func (o *owner) Ended() {}",
		test(".", "TestWaitersBehindALostLockGoOn"), "TestWaitersBehind"},
	{"what is handed over is fresher than it was", "lock.go",
		"Until: until, Handed: true", "Until: until.Add(time.Second), Handed: true",
		test(".", "TestALockThatIsHandedOverIsNoFresher"), "TestALockThatIsHandedOver"},
	{"what is handed over outlives the next holder's ttl", handoff,
		"left <= w.ttl && ", "",
		test(".", "TestALockIsNotHandedOverForLongerThanAskedFor"), "TestALockIsNotHandedOver"},
	{"a node tells of a grant before it has set the key", queueLua,
		"    local fence = give(token, window, terms)\n    local heard = fence and ", "    local heard = push(channel, token, nonce, number, 0)\n    local fence = give(token, window, terms)\n    heard = heard and ",
		test("./internal/redisnode", "TestAGrantThatFailsIsNotToldOf"), "TestAGrantThatFails"},
	{"a node grants the key to a candidate that does not listen", queueLua,
		"type(heard) == 'number' and heard > 0", "type(heard) == 'number'",
		test("./internal/redisnode", "TestAQueueGrantsInOrder"), "TestAQueueGrants"},
	{"a node tells the number of the Join that ran last", queueLua,
		"tonumber(before) > tonumber(number)", "false",
		test("./internal/redisnode", "TestAQueueGrantsInOrder"), "TestAQueueGrants"},

	{"the largest number is the fence, and no node is told", fence,
		"for n.count() < need {", "for need = 1; n.count() < need; {",
		test(".", "TestNodesThatDisagreeAgreeOnTheLargest"), "TestNodesThatDisagree"},
	{"a node that has counted further counts as one that agrees", fence,
		"	case fence > n.fence:\n		n.fence, n.agreed = fence, 1<<node\n	case fence == n.fence:", "	case n.fence == 0:\n		n.fence, n.agreed = fence, 1<<node\n	case fence >= n.fence:",
		test(".", "TestAStragglerThatCountedFurtherMakesTheFence"), "TestAStraggler"},
	{"a counter is raised for a process that does not own the key", "internal/redisnode/confirm.lua",
		"if owner ~= ARGV[1] then", "if false then",
		test("./internal/redisnode", "TestANodeCountsTheFencesOfEachKey"), "only its owner"},
	{"a node in memory raises a counter for a process that does not own the key", "internal/memnode/fence.go",
		"token != c.Claim.Token {", "token == \"\" {",
		replay(), "confirm_without_owner_check,_timed/P2"},
	{"a waiter has the floor of when it came", candidate,
		"entry.Floor = c.queue.floor()", "entry.Floor = c.options.Floor",
		test(".", "TestTheFenceOfAWaiterIsAboveThoseOfEarlierHolders"), "TestTheFenceOfAWaiter"},
	{"a lock that is handed over keeps its fence", handoff,
		"fenced := l.holder.Fenced() || next.options.Floor > 0", "fenced := false",
		test(".", "TestEveryHolderHasAFenceOfItsOwn"), "TestEveryHolder"},
	{"a lock that is handed over tells who held it before", handoff,
		" && l.holder.Options().Metadata == next.options.Metadata", "",
		test(waiting, "TestAKeyIsPassedOnOnlyToTheSameMetadata"), "TestAKeyIsPassedOn"},
	{"a waiter without a fence has the candidate of one with", localQ,
		"c.fits(w)", "true",
		test(waiting, "TestAWaiterGetsACandidateOfItsOwnTerms"), "TestAWaiterGets"},
	{"a node trusts what it held before its restart", "internal/redisnode/guard.lua",
		"if its ~= run or turned ~= turn", "if not its or turned ~= turn",
		test("./internal/redisnode", "TestANodeThatMayHaveForgottenDoesNotVote"), "of another run"},
	{"a node in quarantine grants to its queue", queueLua,
		"if quarantined(quarantine) > 0 then", "if false then",
		test("./internal/redisnode", "TestANodeInQuarantineGrantsNothingToItsQueue"), "TestANodeInQuarantine"},
	{"an extension sets again what a node in quarantine may have given to another", "internal/redisnode/extend.lua",
		"if left > 0 then", "if false then",
		test("./internal/redisnode", "TestANodeThatMayHaveForgottenDoesNotVote"), "no extension sets"},
	{"a master trusts what it held before it was a replica", "internal/redisnode/guard.lua",
		"or known ~= history then", "or false then",
		test("./internal/redisnode", "TestAMasterThatWasAReplicaForAWhileDoesNotVote"), "TestAMasterThatWas"},
	{"a master that was a replica is trusted once its backlog is gone", "internal/redisnode/guard.lua",
		" or turned ~= turn or", " or",
		test("./internal/redisnode", "TestAMasterThatWasAReplicaLongAgoDoesNotVote"), "TestAMasterThatWas"},
	{"a master that drops its backlog is quarantined again", "internal/redisnode/guard.lua",
		" or not string.match(before, '^0+$') then", " or true then",
		test("./internal/redisnode", "TestAPromotedMasterIsQuarantinedOnce"), "TestAPromotedMaster"},
	{"a vote has the number of a call that came late", "internal/redisnode/join.lua",
		"raise({ARGV[12]}, 1, ARGV[9], 0, ARGV[10])", "counted(ARGV[12])",
		test("./internal/redisnode", "TestAGrantOfTheQueueIsNumbered"), "TestAGrantOfTheQueue"},
	{"nil of an unproven connection is a vote", pipeline,
		"case p != mute && !able.votes(seen):", "case false:",
		test("./internal/redisnode", "TestNilIsNoVoteWhereGETIsNotHonoured"), "Should not be: 0x1"},
	{"whatever SET with GET answers of a key that is ours is a proof", pipeline,
		"ours[i] = err == nil && value == granted[i].Claim.Token", "ours[i] = err != nil || value != \"\"",
		test("./internal/redisnode", "TestNilIsNoVoteWhereGETIsNotHonoured"), "Should not be: 0x1"},
	{"a new connection is as proven as the one before", "internal/redisnode/ability.go",
		"a.word.CompareAndSwap(before, (before>>proofBits+1)<<proofBits)", "a.word.CompareAndSwap(before, before)",
		test("./internal/redisnode", "TestACommandThatGoesOverANewConnectionIsNoVoteByNilAlone|TestScriptsAreProvenAgainOnANewConnection"), "Should not be: 0x1"},
	{"a plain SET before any script has succeeded", "internal/redisnode/command.go",
		"c.IsPlain() && p != unproven", "c.IsPlain()",
		test("./internal/redisnode", "TestAServerWithoutScriptsRefusesTheFirstAcquire"), ": [EVAL EVALSHA]"},
	{"scripts are taken for proven although they are denied", "internal/redisnode/reply.go",
		"if sent == asScript { // a plain", "if false { // a plain",
		test("./internal/redisnode", "TestAUserThatMayNoLongerRunScriptsTakesNoKey"), "TestAUserThatMayNoLonger"},
	{"a replica keeps its connection", "internal/redisnode/redial.go",
		"s.connections.close()", "s.connections.changed()",
		test("./internal/redisnode", "TestAPingOfAReplicaFailsAndHasItDialledAgain"), "waited for 30s without success"},
	{"a replica is dialled again without a pause", "internal/redisnode/redial.go",
		"now.Sub(s.redialled) < redialPause", "now.Sub(s.redialled) < 0",
		test("./internal/redisnode", "TestAServerThatStaysAReplicaIsDialledOnceASecond"), "is not greater than or equal to"},
	{"a name that the library uses is a lock key", acquire,
		"err := node.Reserved(key); err != nil", "err := node.Reserved(key); err != nil && false",
		test(".", "TestNamesThatTheLibraryUsesAreNoKeys"), "TestNamesThatTheLibraryUsesAreNoKeys"},
	{"whatever stands before the port is a host", "internal/redisnode/url.go",
		"slices.ContainsFunc(labels, func(l string) bool { return !isLabel(l) })", "false && slices.ContainsFunc(labels, func(l string) bool { return !isLabel(l) })",
		test(".", "TestWhatIsNotAURLIsRefusedWithoutAWordOfIt"), "TestWhatIsNotAURLIsRefusedWithoutAWordOfIt"},
	{"a parameter that means nothing is ignored", "internal/redisnode/url.go",
		"check, known := parameters[name]", "check, known := parameters[name]\n\t\tif !known {\n\t\t\tcontinue\n\t\t}",
		test(".", "TestWhatIsNotAURLIsRefusedWithoutAWordOfIt"), "TestWhatIsNotAURLIsRefusedWithoutAWordOfIt"},
	{"a server that is no Cluster is taken for one", "internal/redisnode/dial.go",
		"client.Mode() != rueidis.ClientModeCluster {", "false {",
		test(".", "TestAServerThatIsNoClusterIsRefusedAsOne"), "TestAServerThatIsNoClusterIsRefusedAsOne"},
	{"a password that the credentials' error repeats is shown", "internal/redisnode/credentials.go",
		`if e.password != "" {`, "if false {",
		test(".", "TestAnErrorOfTheCredentialsIsTheNodes"), "TestAnErrorOfTheCredentialsIsTheNodes"},

	{"votes that make no quorum are kept", timer,
		"time.Duration { return c.window + c.window/4 }", "time.Duration { return 1000 * c.window }",
		test(waiting, "TestVotesThatMakeNoQuorumAreGivenUp"), "the_other_nodes_are_held"},
	{"votes are kept for a window though no quorum can be reached", timer,
		", c.unreachable(now):", ":",
		test(waiting, "TestVotesThatMakeNoQuorumAreGivenUp"), "the_other_nodes_cannot_be_reached"},
	{"one that has given up comes back at once", timer,
		"now.Add(mathrand.N(c.local.restBound))", "now.Add(0*mathrand.N(c.local.restBound))",
		test(waiting, "TestVotesThatMakeNoQuorumAreGivenUp"), "is not less than"},
	{"rests do not grow", timer,
		"min(max(2*c.local.restBound, c.window), longestRest*c.window)", "c.window",
		test(waiting, "TestRestsGrowUntilAWin"), "TestRestsGrow"},
	{"one that comes back has lost its place", candidate,
		"Waited: now.Sub(c.since),", "Waited: 0 * now.Sub(c.since),",
		test(waiting, "TestACandidateThatRestsKeepsItsPlace"), "not granted"},
	{"the window does not grow", "internal/waitqueue/window.go",
		"min(max(usualWindow, min(8*trip, max(longWindow, 5*trip))), ttl)", "min(usualWindow, ttl)",
		test(waiting, "TestTheWindowGrowsUnderANewTokenOnly"), "not granted"},
	{"the window grows under the same token", votes,
		"		c.renew()\n		c.joinAll()\n", "		c.window = window\n		c.joinAll()\n",
		test(waiting, "TestTheWindowGrowsUnderANewTokenOnly"), "TestTheWindowGrows"},
	{"a call that was never made of a node is one that it owes an answer to", candidate,
		"if s := &c.states[i]; nodes&(1<<i) != 0 {", "if s := &c.states[i]; nodes != 0 {",
		test(waiting, "TestANodeThatWasNotAskedOwesNothing"), "TestANodeThatWasNotAsked"},
	{"a push counts with any nonce", candidate,
		"case p.Nonce != c.states[i].nonce:", "case false:",
		test(waiting, "TestAPushThatANodeCannotHaveMadeIsNoVote"), "nonce"},
	{"a push counts with any fence", candidate,
		" && c.validFence(p.Fence):", ":",
		test(waiting, "TestAPushThatANodeCannotHaveMadeIsNoVote"), "a fence"},
	{"a waiter that leaves throws its grant back", handoff,
		"l == nil || !q.suits(l, g)", "l == nil || q != nil",
		test(waiting, "TestAGrantThatIsLeftGoesToTheNextWaiterThatCanUseIt"), "at once"},
	{"an older rival is never yielded to", settling,
		"case elder && !c.yielded && (!underWay || now >= c.drained):", "case false:",
		test(contests, "TestTheEldestOfContendersWithSplitVotesGoesOn"), "the one of age"},
	{"what a dead process has left stops a contest", settling,
		"	if !stays {\n", "	if stays || !stays {\n",
		test(contests, "TestAGhostStopsNoContest"), "TestAGhostStops"},
	{"a contender yields while its asks are under way", settling,
		"(!underWay || now >= c.drained)", "(underWay || !underWay)",
		test(contests, "TestAContenderThatYieldsAsksNoMoreAndWaitsForPendingReplies"), "it keeps its vote"},
	{"a contender that yields goes on asking", settling,
		" || c.drained > 0 {", " {",
		test(contests, "TestAContenderThatYieldsAsksNoMoreAndWaitsForPendingReplies"), "TestAContenderThatYields"},
	{"split votes are a refusal", settling,
		"return (votes.Granted() > 0 || outstanding > 0) && votes.Owner() == \"\"", "return votes == nil && outstanding > 0",
		simulated("TestOneOfSimultaneousAttemptsSucceeds"), "0 of "},
	{"a settled attempt counts from its last ask", settling,
		"			n.AcquireAgain(c.Claim, c.TTL, v)\n", "			c.Start = c.Now()\n			n.AcquireAgain(c.Claim, c.TTL, v)\n",
		test(contests, "TestAReplyThatNamesOurOwnTokenIsAGrant"), "validity counts from the first ask"},
	{"a reply that names our own token is a refusal", settle,
		"c.Kind == Acquire && c.Outcome == Refused && c.Owner == c.Claim.Token", "false",
		test("./internal/node", "TestANodeCountsAReplyThatNamesTheClaimAsAGrant"), "TestANodeCounts"},
	{"a second acquire of a claim is no refill", "internal/node/claim.go",
		"kind != Acquire || p.acquireSent", "kind != Acquire",
		test("./internal/node", "TestAnAttemptThatWasAskedTwiceLeavesNothingInWhateverOrder"), "Should be zero"},
	{"a claim that asks again raises the ttl of what it has", "internal/redisnode/acquire.lua",
		"if ours == n then", "if false then",
		test("./internal/redisnode", "TestAClaimThatAsksAgainRaisesNothing"), "TestAClaimThatAsksAgain"},
	{"a lock without automatic extension starts with what is left", "fresh.go",
		"short := left < full/10*9", "short := full < 0",
		test(".", "TestALockStartsWithItsFullValidity"), "handed over"},
	{"a lock that is extended automatically starts with what is left", "fresh.go",
		"!short || gain <= slack {\n		return options, a.checkLasts(left, full, trip)\n", "a.auto || !short || gain <= slack {\n		return options, nil\n",
		test(".", "TestATTLThatIsTooShortForTheNodesIsAnErrorThatSaysSo|TestALockThatIsHandedOverForLongStaysValid"), "TestATTLThatIsTooShort"},
	{"a grant tells no other waiter to join again", queueLua,
		"      prepare(skip)\n", "",
		test("./internal/redisnode", "TestAGrantAsksTheSecondWaiterToJoinAgain"), "TestAGrantAsks"},
	{"a place is as old as the token", queueLua,
		"now - 1000 - tonumber(waited)", "now - 1000",
		test("./internal/redisnode", "TestAPlaceIsKeptAcrossAChangeOfTheToken"), "TestAPlaceIsKept"},
	{"a rehearsal ends a quarantine", rehearsal,
		"words[i] = marker", "words[i] = word",
		test("./internal/redisnode", "TestAPlainServerDoesAllOfARehearsalAndKeepsNothingOfIt"), "TestAPlainServer"},
	{"a rehearsal that is cut short leaves its keys", "internal/redisnode/stage.go",
		"context.WithoutCancel(ctx), cleaningTime", "ctx, cleaningTime",
		test("./internal/redisnode", "TestARehearsalThatIsCutShortLeavesNoKey"), "TestARehearsalThatIsCutShort"},
	{"keys that a proxy spreads are one lock", rehearsal,
		"		case node.Done:\n", "		case node.Refilled:\n",
		test("./internal/redisnode", "TestKeysThatAProxySpreadsAreUnsafe"), "TestKeysThatAProxySpreads"},
}
