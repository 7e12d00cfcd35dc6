// One of several shares of the schedules of two nodes, by its seeds.
import t from 'tap'
import { testSchedules } from './schedule-suite.js'

testSchedules(t, { first: 2001, count: 500 })
