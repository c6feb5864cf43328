//! The assignment of greatest weight: the Hungarian method in Jonker and Volgenant's form (1987).

/// Each row's column so that the sum of gains is greatest; rows beyond the columns get none.
pub(super) fn assignment(gains: &[Vec<i64>]) -> Vec<Option<usize>> {
    let (rows, columns) = (gains.len(), gains.first().map_or(0, Vec::len));
    // as many columns of no gain as there are rows make sure that every row finds one
    let width = columns + rows;
    let cost = |row: usize, column: usize| if column < columns { -gains[row][column] } else { 0 };
    let (mut u, mut v) = (vec![0i64; rows + 1], vec![0i64; width + 1]);
    let mut row_of = vec![0usize; width + 1];
    for row in 1..=rows {
        let mut way = vec![0usize; width + 1];
        let (mut least, mut done) = (vec![i64::MAX; width + 1], vec![false; width + 1]);
        row_of[0] = row;
        let mut at = 0;
        loop {
            done[at] = true;
            let (from, mut delta, mut next) = (row_of[at], i64::MAX, 0);
            for column in 1..=width {
                if done[column] {
                    continue;
                }
                let reduced = cost(from - 1, column - 1) - u[from] - v[column];
                if reduced < least[column] {
                    least[column] = reduced;
                    way[column] = at;
                }
                if least[column] < delta {
                    delta = least[column];
                    next = column;
                }
            }
            for column in 0..=width {
                if done[column] {
                    u[row_of[column]] += delta;
                    v[column] -= delta;
                } else if least[column] < i64::MAX {
                    least[column] -= delta;
                }
            }
            at = next;
            if row_of[at] == 0 {
                break;
            }
        }
        while at != 0 {
            row_of[at] = row_of[way[at]];
            at = way[at];
        }
    }
    let mut chosen = vec![None; rows];
    for column in 1..=columns {
        if row_of[column] > 0 {
            chosen[row_of[column] - 1] = Some(column - 1);
        }
    }
    chosen
}
