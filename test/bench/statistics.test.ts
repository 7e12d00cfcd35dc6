// Medians, ratios within rounds, and means.
import t from 'tap'
import { geometricMean, median, medianRatio } from '../../bench/statistics.js'

t.test('the median is the middle, or between the two in the middle', async (t) => {
  t.equal(median([9, 1, 5]), 5)
  t.equal(median([4, 1, 2, 100]), 3)
  t.equal(median([7]), 7)
  t.ok(Number.isNaN(median([])), 'of nothing there is none')
})

t.test('ratios are taken within a round', async (t) => {
  // Half as fast a machine in the second round: each round still says 2.
  t.equal(medianRatio([200, 100, 220], [100, 50, 110]), 2)
  t.equal(medianRatio([10, 40, 90], [10, 20, 30]), 2)
})

t.test('twice as fast and half as fast are the same as equal', async (t) => {
  t.equal(geometricMean([2, 0.5]), 1)
  t.ok(Math.abs(geometricMean([1, 10, 100]) - 10) < 1e-9)
})
