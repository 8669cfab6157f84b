/** Each law goes red for a story that breaks it, and for none that does not. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Event, Life } from './engine-view.ts';
import { type Excuse, noExcuse, violationsOf } from './laws.ts';
import { OTHER, type Played } from './play.ts';
import { FIVE, HOOKS } from './shop.ts';

const START = 1_000_000_000n;

/** Of a container that runs since `startedAt`. */
function up(name: string, startedAt = 'before'): Life {
  const health = name === 'db' ? 'healthy' : undefined;
  return { id: name, status: 'running', isRunning: true, isPaused: false, health, startedAt, finishedAt: '' };
}

const down = (name: string, startedAt = 'before'): Life => ({
  ...up(name, startedAt),
  status: 'exited',
  isRunning: false,
});

const happened = (...lines: readonly string[]): readonly Event[] =>
  lines.map((line, index) => {
    const [name = '', ...words] = line.split(' ');
    return { id: name, name, what: words.join(' '), at: START + BigInt(index + 1) };
  });

const before = Object.fromEntries(FIVE.map(({ name, isIdle }) => [name, isIdle ? down(name) : up(name)]));
const stops = ['web die', 'app die', 'cache pause', 'db die'];
const starts = ['cache unpause', 'db start', 'db health_status: healthy', 'app start', 'web start'];
const MIDDLE = START + BigInt(stops.length + 1);
/** The row of events is one a nanosecond; the command runs after the fourth, as the fifth. */
const events = [
  ...happened(...stops),
  ...happened(...starts).map((event) => ({ ...event, at: event.at + BigInt(stops.length + 2) })),
];
const calls = HOOKS.flatMap((hook) =>
  ['pre begin', 'pre end', 'post begin', 'post end'].map((what) => `${hook} ${what}`),
);

/** A backup in which all went well. */
const GOOD: Played = {
  operation: 'backup',
  commandCode: 0,
  isHookFailing: false,
  before,
  after: before,
  events,
  hooks: HOOKS,
  calls,
  callsAtEnd: calls,
  other: undefined,
  answers: { 'one.1.ans': ['exit=0'], 'one.2.ans': ['exit=0'] },
  commands: [{ beganAt: MIDDLE, endedAt: MIDDLE + 1n }],
  exitCode: 0,
  isKept: false,
  clientSaid: '',
  lives: [{ kill: undefined, points: [], endedBy: undefined }],
  status: { runs: [], holds: [] },
  log: '',
  missed: [],
};

const others = calls.map((line) => `${OTHER}${line}`);

/** Another job, that shares all that is held. */
const SHARED: Played = {
  ...GOOD,
  calls: [...calls, ...others],
  callsAtEnd: calls,
  other: { exitCode: 0, commands: GOOD.commands, clientSaid: '', callsAtEnd: [...calls, ...others] },
};

/** A restore whose command failed. */
const KEPT: Played = {
  ...GOOD,
  operation: 'restore',
  commandCode: 9,
  exitCode: 9,
  isKept: true,
  clientSaid: 'db, app stay held until sidehook release',
  events: happened(...stops),
  after: { ...before, db: down('db'), cache: down('cache'), app: down('app'), web: down('web') },
  calls: calls.filter((line) => !line.includes('post')),
  callsAtEnd: calls.filter((line) => !line.includes('post')),
  status: {
    runs: [{ phase: 'kept' }],
    holds: ['db', 'cache', 'app', 'web'].map((name) => ({ workload: `shop-${name}-1`, status: 'held' })),
  },
};

const judge = (played: Partial<Played>, of: Played = GOOD, excuse: Partial<Excuse> = {}): string =>
  violationsOf(FIVE, { ...of, ...played }, { ...noExcuse(), ...excuse }).join('\n');

describe('the laws', () => {
  it('are kept by backups in which all went well, and by a restore that failed', () => {
    assert.equal(judge({}), '');
    assert.equal(judge({}, KEPT), '');
    assert.equal(judge({}, SHARED), '');
  });

  const broken: readonly (readonly [what: string, played: Partial<Played>, red: RegExp, of?: Played])[] = [
    ['what ran stays down', { after: { ...before, db: down('db') } }, /db ran before, and is exited/],
    ['what did not run is started', { after: { ...before, idle: up('idle', 'later') } }, /idle was started/],
    ['what is not held is touched', { after: { ...before, tool: up('tool', 'later') } }, /tool was touched/],
    ['a workload is gone', { after: { ...before, web: undefined } }, /web is gone/],
    [
      'one is started before what it needs runs',
      { events: happened(...stops, 'cache unpause', 'app start', 'db start') },
      /app was started \(start\) while db did not run/,
    ],
    [
      'one is started before what it needs is healthy',
      { events: happened(...stops, 'cache unpause', 'db start', 'app start') },
      /app was started \(start\) before db was healthy/,
    ],
    ['one is stopped while another needs it', { events: happened('db die') }, /db was stopped \(die\) while app ran/],
    ['a hook runs twice at pre', { calls: [...calls, '10-host pre begin'] }, /hook 10-host ran 2 times at pre/],
    [
      'a hook has no post',
      { calls: calls.filter((line) => !line.startsWith('20-db post')) },
      /hook 20-db ran at pre, and never at post/,
    ],
    [
      'a pre goes on beside its post',
      { calls: ['30-held post begin', ...calls] },
      /the pre of hook 30-held ended after its post had begun/,
    ],
    ['the client never ends', { exitCode: undefined }, /the client never ended/],
    ['the command runs twice', { commands: [...GOOD.commands, ...GOOD.commands] }, /the command ran 2 times/],
    ['the command runs though it was refused', { exitCode: 75 }, /the command ran 1 times, and the exit code is 75/],
    ['0, and no command', { commands: [] }, /exit code 0, and the command never ran/],
    [
      'the command runs without a pre',
      { calls: calls.filter((line) => line !== '40-tool pre end') },
      /the command ran, and the pre of hook 40-tool had not ended/,
    ],
    [
      'a hook begins at pre when its client has gone',
      { callsAtEnd: calls.filter((line) => line !== '40-tool pre begin'), exitCode: 75, commands: [] },
      /1 hooks began at pre when their client had gone with 75/,
    ],
    [
      'what is held runs while the command reads, and it counts as good',
      { commands: [{ beganAt: START, endedAt: START + 100n }] },
      /db ran while its data were read, and the backup counts as good/,
    ],
    [
      'what is held is started while the command of a killed client reads',
      { commands: [{ beganAt: MIDDLE, endedAt: START + 100n }], exitCode: 137 },
      /web ran while its data were read, and the command held the lease/,
    ],
    [
      'what is held runs while the command of the other job reads',
      { other: { exitCode: 0, commands: [{ beganAt: START, endedAt: MIDDLE }], clientSaid: '', callsAtEnd: others } },
      /the other job: db ran while its data were read/,
      SHARED,
    ],
    [
      'a hook of the other job ran at pre, and never at post',
      { calls: [...calls, ...others.filter((line) => !line.includes('10-host post'))] },
      /the other job: hook 10-host ran at pre, and never at post/,
      SHARED,
    ],
    ['an answer is changed', { answers: { 'one.1.ans': ['exit=0', 'exit=75'] } }, /one\.1\.ans was answered 2 times/],
    [
      'the daemon ends by itself',
      { lives: [{ kill: undefined, points: [], endedBy: '70' }] },
      /life 1 of the daemon ended by itself: 70/,
    ],
    ['status is silent', { status: undefined }, /status: no answer/],
    [
      'status calls held what runs',
      { status: { runs: [], holds: [{ workload: 'shop-db-1', status: 'held' }] } },
      /status says that db is held, and the engine that it runs/,
    ],
    ['what was waited for did not come', { missed: ['wait for the run to be over'] }, /wait for the run/],
    [
      'over a half restored volume one is started',
      { after: { ...KEPT.after, db: up('db', 'later') } },
      /db was started after a failed restore/,
      KEPT,
    ],
    [
      'status does not tell of a failed restore',
      { status: { runs: [], holds: KEPT.status?.holds ?? [] } },
      /status does not tell of a failed restore/,
      KEPT,
    ],
    ['nor the client', { clientSaid: '' }, /the client was not told what stays held/, KEPT],
    [
      'post hooks run over a half restored volume',
      { calls },
      /hook 10-host ran at post, after a restore that did not succeed/,
      KEPT,
    ],
  ];
  for (const [what, played, red, of] of broken) {
    it(`are broken: ${what}`, () => assert.match(judge(played, of), red));
  }

  it('excuse what is the fault itself, and no more', () => {
    assert.equal(judge({ after: { ...before, web: undefined } }, GOOD, { down: new Set(['web']) }), '');
    assert.match(judge({ after: { ...before, app: undefined } }, GOOD, { down: new Set(['web']) }), /app is gone/);
    assert.match(judge({ commandCode: 9 }, GOOD, { codes: 'any' }), /exit code 0, and the command failed/);
  });
});
